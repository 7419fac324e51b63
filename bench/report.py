"""Markdown tables, the facts of the machine, and the files in `results/`."""

import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


def machine_facts() -> dict[str, str]:
    """Return what a reader needs to compare figures, and nothing that names the machine."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def machine_sentence() -> str:
    """Return the facts of the machine as a sentence."""
    facts = machine_facts()
    return f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}."


def markdown(lines: list[list[str]]) -> str:
    """Return a Markdown table of `lines`, the header and its rule among them."""
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def write(name: str, text: str, document: dict[str, object]) -> None:
    """Write `results/<name>.md` and `results/<name>.json`, each whole or not at all."""
    write_whole(f"{name}.md", text + "\n")
    write_document(name, document)


def write_document(name: str, document: dict[str, object]) -> None:
    """Write `results/<name>.json` alone, with the time and the machine."""
    stamped = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_facts(), **document}
    write_whole(f"{name}.json", json.dumps(stamped, indent=2, ensure_ascii=False) + "\n")


def write_whole(name: str, content: str) -> None:
    """Write `results/<name>`, whole or not at all."""
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.tmp")
    part.write_text(content)
    part.replace(path)
