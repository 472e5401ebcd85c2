"""Runs a command in a terminal of 100 columns and writes what stands there at its end, as HTML: terminal.py FILE TRACES COMMAND..

TRACES: how many of the traces at the end of the demo are shown.
"""

import fcntl
import html
import os
import pty
import re
import struct
import sys
import termios

COLUMNS, ROWS = 100, 200
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#56d4dd", 90: "#8b949e"}
PAGE = """<!doctype html><meta charset=utf-8><style>
body{{margin:0;background:#0d1117}}
pre{{margin:0;padding:18px 22px;font:14px/20px "DejaVu Sans Mono",monospace;color:#e6edf3}}
</style><pre data-height="{height}">{text}</pre>"""


def run(command):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    out = b""
    while True:
        try:
            more = os.read(terminal, 1 << 16)
        except OSError:
            more = b""
        if not more:
            os.waitpid(pid, 0)
            return out.decode(errors="replace")
        out += more


def line_as_html(line):
    """Of what was written over itself, the last; colours as styles."""
    line = line.rstrip("\r").split("\r")[-1]
    out, style, width = [], [], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", line):
        if code := re.fullmatch(r"\x1b\[([0-9;]*)m", part):
            for n in [int(n or 0) for n in code[1].split(";")]:
                style = [] if n == 0 else style + [{1: "font-weight:bold", 2: "opacity:.65"}.get(n, f"color:{COLOURS[n]}" if n in COLOURS else "")]
        elif part and not part.startswith("\x1b"):
            # Long lines are folded, as a terminal does.
            for char in part:
                if width == COLUMNS:
                    out.append("\n")
                    width = 0
                out.append(f'<span style="{";".join(filter(None, style))}">{html.escape(char)}</span>' if style else html.escape(char))
                width += 1
    return "".join(out)


def main(to, traces, command):
    shown = " ".join(["docket", *command[1:]])
    lines = [f'<span style="color:#8b949e">$</span> {html.escape(shown)}'] + [line_as_html(line) for line in run(command).split("\n")]
    begins = [i for i, line in enumerate(lines) if line.startswith("trace ")] + [len(lines)] * (traces + 1)
    text = "\n".join(lines[: begins[traces]]).rstrip()
    with open(to, "w") as file:
        file.write(PAGE.format(text=text, height=36 + 20 * (text.count("\n") + 1)))


main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
