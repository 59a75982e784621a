"""Stamp every notebook's badge, setup cell and accelerator, and README's badges, from one place.

    python scripts/badges.py                 from [tool.mxnb] repository in pyproject.toml
    python scripts/badges.py owner/name      from here on that repository
    python scripts/badges.py --check         write nothing; exit 1 where something differs

The setup cell's text is colab/setup_cell.py. Colab opens a notebook on a T4, or on what [tool.mxnb.accelerators] in
pyproject.toml names for it: "T4" or "V5E1".
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETUP = re.compile(r'(?<=# %% cellView="form" tags=\["setup"\]\n).*?(?=\n\n# %%)', re.S)
BADGE = re.compile(r"(?m)^(# )?\[!\[Open in Colab\]\(.*\n(?:#\n|\n)?")
ACCELERATOR = re.compile(r"(?m)^#   accelerator: .*\n#   colab:\n#     gpuType: .*$")
MENU = {"T4": "GPU", "V5E1": "TPU"}  # what Colab's menu of runtimes calls its kind
README = re.compile(r"(?<=<!-- badges -->\n).*?(?=\n<!-- end of badges -->)", re.S)
UNKNOWN = "OWNER/mxnb"  # where nobody has said yet: the setup cell then asks for a clone


def badge(repository: str, stem: str) -> str:
    """Markdown that opens a notebook of the repository's main branch in Colab."""
    colab = "https://colab.research.google.com"
    notebook = f"{colab}/github/{repository}/blob/main/notebooks/{stem}.ipynb"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({notebook})"


def stamped(text: str, repository: str, stem: str, accelerator: str = "T4") -> str:
    """A notebook's source with its badge below the title, with the setup cell and the accelerator."""
    if accelerator not in MENU or len(ACCELERATOR.findall(text)) != 1:
        raise ValueError(
            f"{stem}: it needs one accelerator of {', '.join(MENU)}, and lines for it; got {accelerator!r}"
        )
    chosen = f"#   accelerator: {MENU[accelerator]}\n#   colab:\n#     gpuType: {accelerator}"
    text = ACCELERATOR.sub(chosen, text)
    cell = (ROOT / "colab" / "setup_cell.py").read_text().rstrip("\n")
    known = "" if repository == UNKNOWN else repository
    cell = cell.replace('repository = ""', f'repository = "{known}"')
    if len(SETUP.findall(text)) != 1:
        raise ValueError(f"{stem}: it needs one cell tagged setup")
    text = SETUP.sub(lambda _: cell, BADGE.sub("", text))
    title = re.search(r"(?m)^# # .*\n#\n", text)
    if title is None:
        raise ValueError(f"{stem}: its first cell needs a title and an empty line")
    return f"{text[: title.end()]}# {badge(repository, stem)}\n#\n{text[title.end() :]}"


def readme(text: str, repository: str, titles: dict[str, str]) -> str:
    """README with a line for each notebook between its two marks."""
    lines = [f"| {title} | {badge(repository, stem)} |" for stem, title in sorted(titles.items())]
    return README.sub(lambda _: "\n".join(["| notebook | |", "|---|---|", *lines]), text)


def main(arguments: list[str]) -> int:
    """Stamps or checks; the exit status."""
    check, names = "--check" in arguments, [word for word in arguments if word != "--check"]
    settings = ROOT / "pyproject.toml"
    told = settings.read_text()
    own = tomllib.loads(told)["tool"]["mxnb"]
    repository, accelerators = names[0] if names else own["repository"], own.get("accelerators", {})
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        print(f"{repository!r} is no owner/name of a repository")
        return 1
    fresh = {settings: re.sub(r'(?m)^repository = "[^"]*"', f'repository = "{repository}"', told)}
    titles = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")):
        text = path.read_text()
        titles[path.stem] = re.findall(r"(?m)^# # (.*)$", text)[0]
        fresh[path] = stamped(text, repository, path.stem, accelerators.get(path.stem, "T4"))
    fresh[ROOT / "README.md"] = readme((ROOT / "README.md").read_text(), repository, titles)
    if unknown := [name for name in accelerators if name not in titles]:
        raise ValueError(f"[tool.mxnb.accelerators] names {', '.join(unknown)}; there are {', '.join(titles)}")
    stale = [path for path, text in fresh.items() if path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'differs: run make badges' if check else 'written'}")
        if not check:
            path.write_text(fresh[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
