"""A `colab` for the tests, as google-colab-cli 0.7.5 behaves: a folder is the machine, which lives until `stop`.

Every call is noted in calls.jsonl beside it. What it keeps of the real one: a session is known to the --config file
that made it alone; `exec` gives each cell 30 s if not told otherwise, goes on after a cell that failed, and ends with
0 then; an unknown GPU becomes an A100.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

BESIDE = Path(__file__).parent


def main(config: Path, word: str, session: str, words: list[str]) -> int:
    known = json.loads(config.read_text()) if config.exists() else {}
    machine = BESIDE / "machines" / session
    if word in ((BESIDE / "broken").read_text().split() if (BESIDE / "broken").exists() else ()) and word != "new":
        print(f"[colab] connection lost in {word}")
        return 1
    if word == "new":
        if "new" in (BESIDE / "broken").read_text().split() if (BESIDE / "broken").exists() else False:
            print("[colab] 400: no such accelerator for this account")
            return 1
        machine.mkdir(parents=True)
        config.write_text(json.dumps({**known, session: words}))
        return 0
    if session not in known or not machine.exists():
        print(f"[colab] Session '{session}' not found")
        return 1
    there = lambda path: machine / path.removeprefix("/content/")
    if word == "stop":
        shutil.rmtree(machine)
    elif word == "upload":
        shutil.copy(words[0], there(words[1]))
    elif word == "download":
        shutil.copy(there(words[0]), words[1])
    elif word == "exec":
        return execute(machine, Path(words[words.index("-f") + 1]), words)
    elif word != "restart-kernel":
        return 2
    return 0


def execute(machine: Path, file: Path, words: list[str]) -> int:
    import nbformat

    seconds = float(words[words.index("--timeout") + 1]) if "--timeout" in words else 30.0
    there = lambda source: source.replace("/content", str(machine))
    if file.suffix == ".py":
        # the kernel lives on: what the code leaves open stays open
        living = f"import gc, os; gc.disable(); exec({there(file.read_text())!r}); os._exit(0)"
        return subprocess.run([sys.executable, "-c", living], cwd=machine, timeout=seconds).returncode
    from nbclient import NotebookClient

    book = nbformat.read(file, as_version=4)
    for cell in book.cells:
        cell.source = there(cell.source)
    NotebookClient(book, timeout=seconds, allow_errors=True, resources={"metadata": {"path": str(machine)}}).execute()
    nbformat.write(book, file.with_stem(f"{file.stem}_output"))
    return 0


if __name__ == "__main__":
    flag, config, word, name, session, *rest = sys.argv[1:]
    assert (flag, name) == ("--config", "-s"), sys.argv
    with open(BESIDE / "calls.jsonl", "a") as calls:
        calls.write(json.dumps([word, session, *rest]) + "\n")
    sys.exit(main(Path(config), word, session, rest))
