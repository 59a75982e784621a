(() => {
  // One listener for all players of a page: each holds its pictures, and cells are run again and again.
  const players = window.mxnbPlayers ??= new Set();
  if (!window.mxnbRedraw) {
    window.mxnbRedraw = () => players.forEach((player) => player.root.isConnected ? player.chart() : players.delete(player));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", window.mxnbRedraw);
    new MutationObserver(window.mxnbRedraw).observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  }

  const make = (root) => {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const at = (name) => root.querySelector("[data-mx=" + name + "]");
    const frame = at("frame"), said = at("said"), play = at("play"), slider = at("slider"), time = at("time");
    const speed = at("speed"), which = at("episode"), jump = at("jump"), acts = at("acts"), got = at("got"), fold = at("fold");
    const pictures = data.pictures.map((code) => { const image = new Image(); image.src = "data:image/webp;base64," + code; return image; });
    let now = data.episodes[0], step = 0, timer = null;
    const last = () => now.frames.length - 1;
    const word = (action) => data.actions[action] ?? "action " + action;
    const number = (x, digits = 2) => x === null ? "not a number" : Number(x).toFixed(digits);

    const draw = () => {
      const picture = pictures[now.frames[step]], wanted = step, whose = now;
      if (!picture.complete) { picture.onload = () => { if (step === wanted && now === whose) draw(); }; return; }
      if (frame.width !== picture.naturalWidth || frame.height !== picture.naturalHeight) {
        frame.width = picture.naturalWidth; frame.height = picture.naturalHeight;
      }
      // Words in a large picture would lose strokes where it is enlarged, or made smaller by whole pixels.
      const large = frame.width > data.large;
      frame.style.maxWidth = large ? frame.width + 2 + "px" : "";  // and its border
      frame.style.imageRendering = large ? "auto" : "";
      frame.getContext("2d").drawImage(picture, 0, 0);
    };

    const tell = () => {
      const end = step === last(), parts = [];
      if (end) parts.push(now.end, "return " + number(now.total));
      else {
        parts.push(now.actions ? word(now.actions[step]) : "action " + now.moves[step]);
        const what = now.events.filter(([t, words]) => t === step && !words.startsWith("reward ")).map((event) => event[1]);
        if (what.length) parts.push("event: " + what.join(", "));
        if (now.rewards[step]) parts.push("reward " + (now.rewards[step] > 0 ? "+" : "") + number(now.rewards[step]));
        if (now.values) parts.push("value " + number(now.values[step]));
        parts.push("entropy " + number(now.entropies[step]) + " nats");
      }
      said.replaceChildren();
      const head = document.createElement("b");
      head.textContent = "Step " + step + " of " + last() + ": ";
      said.append(head, parts.join(" · "));
      frame.setAttribute("aria-label", said.textContent);
      slider.setAttribute("aria-valuetext", said.textContent);
    };

    const weigh = () => {
      if (!now.probs) return;
      const probs = step === last() ? null : now.probs[step], mask = step === last() || !now.masks ? null : now.masks[step];
      lines.forEach((line, i) => {
        const masked = mask !== null && mask[i] === "0", share = probs ? probs[i] : 0;
        line.classList.toggle("mx-masked", masked);
        line.classList.toggle("mx-taken", probs !== null && now.actions[step] === i);
        line.querySelector("b").style.width = 100 * share + "%";
        line.lastChild.textContent = probs === null ? "" : masked && share < .005 ? "masked" : share > 0 && share < .01 ? "<1 %" : Math.round(100 * share) + " %";
      });
    };

    const collect = () => [...got.children].forEach((item, i) => {
      const when = now.got[i], has = when !== null && when < step;  // its action is taken at that step, and seen to work at the next
      item.classList.toggle("mx-yes", has);
      item.classList.toggle("mx-now", when === step);
      item.textContent = (has ? "✓ " : "") + data.achievements[i] + (has ? ", step " + when : when === step ? ": now" : "");
    });

    // Only what is masked in the whole episode: rows that come and go with every step cannot be followed.
    const tuck = () => {
      const many = data.actions.length > 24, never = (i) => many && now.masks !== null && now.masks.every((mask) => mask[i] === "0");
      lines.forEach((line, i) => (never(i) ? fold.lastElementChild : acts).append(line));
      const count = fold.lastElementChild.childElementCount;
      fold.hidden = !count;
      fold.firstElementChild.textContent = count + " masked in the whole episode";
    };

    const lanes = () => [["reward", now.rewards, "--mark"], ["value", now.values, "--value"], ["entropy (nats)", now.entropies, "--entropy"]].filter((lane) => lane[1]);
    const right = 8, under = 36;  // room below the lanes: events, and the axis of steps
    let left = 84;
    const brief = (v) => number(v, Math.abs(v) < 10 && v ? 1 : 0);
    const place = (t, width) => left + (width - left - right) * (last() ? t / last() : 0);
    const chart = () => {
      const width = time.clientWidth, height = time.clientHeight, ratio = window.devicePixelRatio || 1;
      if (!width) return;
      time.width = width * ratio; time.height = height * ratio;
      const ink = time.getContext("2d"), css = getComputedStyle(root), colour = (name) => css.getPropertyValue(name).trim();
      ink.scale(ratio, ratio); ink.font = "12px system-ui, sans-serif";
      const tall = (height - under) / lanes().length;
      const drawn = lanes().map(([name, values, hue]) => {
        const told = values.filter((v) => v !== null), low = Math.min(0, ...told), high = Math.max(0, ...told);
        return { name, values, hue, low, high, range: brief(low) + " to " + brief(high) };
      });
      left = 8 + Math.ceil(Math.max(...drawn.flatMap((lane) => [lane.name, lane.range]).map((words) => ink.measureText(words).width)));
      // The cursor lies behind: it must not hide the reward and the event it stands at.
      ink.strokeStyle = colour("--ink"); ink.lineWidth = 1.5;
      ink.beginPath(); ink.moveTo(place(step, width), 0); ink.lineTo(place(step, width), height - 17); ink.stroke();
      drawn.forEach(({ name, values, hue, low, high, range }, k) => {
        const top = k * tall + 6, room = tall - 10, y = (v) => top + room * (1 - (v - low) / (high - low || 1));
        ink.fillStyle = colour("--dim"); ink.textAlign = "right";
        ink.fillText(name, left - 6, top + room / 2 - 1);
        ink.fillText(range, left - 6, top + room / 2 + 12);
        ink.strokeStyle = colour("--line"); ink.lineWidth = 1;
        ink.beginPath(); ink.moveTo(left, y(0)); ink.lineTo(width - right, y(0)); ink.stroke();
        ink.strokeStyle = colour(hue); ink.lineWidth = name === "reward" ? 2.5 : 1.5; ink.beginPath();
        let pen = false;  // lifted where a value is not a number
        values.forEach((v, t) => {
          const x = place(t, width);
          if (name === "reward") { if (v) { ink.moveTo(x, y(0)); ink.lineTo(x, y(v)); } return; }
          if (v !== null) pen ? ink.lineTo(x, y(v)) : ink.moveTo(x, y(v));
          pen = v !== null;
        });
        ink.stroke();
      });
      ink.fillStyle = colour("--mark");
      now.events.forEach((event) => { ink.beginPath(); ink.arc(place(event[0], width), height - 26, 3.5, 0, 7); ink.fill(); });
      ink.fillStyle = colour("--dim"); ink.textAlign = "right"; ink.fillText("events", left - 6, height - 22);
      ink.fillText(last() + " steps", width - right, height - 4);
      ink.textAlign = "left"; ink.fillText("0", left, height - 4);
    };

    const go = (to) => {
      step = Math.max(0, Math.min(last(), Math.round(to)));
      slider.value = step;
      if (step === last()) halt();
      draw(); tell(); weigh(); collect(); chart();
      root.dataset.step = step;
      // Not `disabled`: that would take the focus away, and the keys with it.
      at("before").setAttribute("aria-disabled", !now.events.some((event) => event[0] < step));
      at("after").setAttribute("aria-disabled", !now.events.some((event) => event[0] > step));
      jump.value = now.events.some((event) => event[0] === step) ? step : "";
    };
    const halt = () => { clearTimeout(timer); timer = null; play.textContent = "▶ Play"; play.setAttribute("aria-label", "Play"); };
    const tick = () => { if (!root.isConnected) return halt(); go(step + 1); if (timer !== null) timer = setTimeout(tick, 1000 / speed.value); };
    const start = () => {
      if (step === last()) go(0);
      play.textContent = "❚❚ Pause"; play.setAttribute("aria-label", "Pause");
      timer = setTimeout(tick, 1000 / speed.value);
    };
    const toggle = () => timer === null ? start() : halt();
    const event = (way) => {
      const steps = now.events.map((event) => event[0]).filter((t) => way > 0 ? t > step : t < step);
      if (steps.length) { halt(); go(way > 0 ? steps[0] : steps[steps.length - 1]); }
    };
    const open = (i) => {
      halt(); now = data.episodes[i]; slider.max = last();
      jump.replaceChildren(new Option(now.events.length ? "Jump to …" : "no events", ""), ...now.events.map(([t, words]) => new Option("step " + t + ": " + words, t)));
      jump.disabled = !now.events.length;
      acts.parentElement.hidden = !now.probs;
      tuck(); go(0);
    };

    data.episodes.forEach((episode, i) => which.append(new Option(episode.name, i)));
    which.parentElement.hidden = data.episodes.length < 2;
    const lines = data.actions.map((name) => {
      const line = document.createElement("div"), bar = document.createElement("i");
      line.className = "mx-act"; bar.append(document.createElement("b"));
      line.append(document.createElement("span"), bar, document.createElement("span"));
      line.firstChild.textContent = name;
      return line;
    });
    root.classList.toggle("mx-many", data.actions.length > 24);
    data.achievements.forEach(() => got.append(document.createElement("li")));
    got.parentElement.hidden = !data.achievements.length;
    play.onclick = toggle;
    at("back").onclick = () => { halt(); go(step - 1); };
    at("on").onclick = () => { halt(); go(step + 1); };
    at("before").onclick = () => event(-1);
    at("after").onclick = () => event(1);
    slider.oninput = () => { halt(); go(slider.value); };
    which.onchange = () => open(which.value);
    jump.onchange = () => { if (jump.value !== "") { halt(); go(jump.value); } };
    const scrub = (e) => { const box = time.getBoundingClientRect(); halt(); go((e.clientX - box.left - left) / (box.width - left - right) * last()); };
    time.onpointerdown = (e) => { time.setPointerCapture(e.pointerId); scrub(e); };
    time.onpointermove = (e) => { if (e.buttons) scrub(e); };
    root.onkeydown = (e) => {
      if (e.altKey || e.ctrlKey || e.metaKey || e.target.tagName === "SELECT") return;
      const press = { ArrowLeft: () => { halt(); go(step - 1); }, ArrowRight: () => { halt(); go(step + 1); }, Home: () => { halt(); go(0); },
        End: () => { halt(); go(last()); }, n: () => event(1), p: () => event(-1) };
      if (e.key === " " && !["BUTTON", "SUMMARY"].includes(e.target.tagName)) toggle();
      else if (press[e.key]) press[e.key]();
      else return;
      e.preventDefault(); e.stopPropagation();
    };
    new ResizeObserver(chart).observe(time);
    players.add({ root, chart });
    root.querySelector(".mx-strip").open = false;
    if (data.episodes.length > 1) root.querySelector(".mx-strip summary").textContent = "Filmstrip of the first episode";
    root.querySelector(".mx-body").hidden = false;
    open(0);
    root.querySelector(".mx-still").hidden = true;
    root.dataset.ready = "yes";
  };
  for (const root of document.querySelectorAll(".mxnb-player:not([data-ready])")) {
    try { make(root); } catch (error) { console.error(error); }  // its filmstrip stays open, and other players work
  }
})();
