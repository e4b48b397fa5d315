"""Takes one figure out of a page of kogia report, as an SVG file that stands alone.

    report_figure.py PAGE.html "MaxVio over 100 steps" FIGURE.svg
"""

import html
import re
import sys

STYLE = """
text { font: 12px sans-serif; fill: #667; } .xt { text-anchor: middle; } .yt, .x1 { text-anchor: end; }
.title { font-weight: 600; font-size: 14px; } .grid { stroke: #889; stroke-opacity: .35; fill: none; }
polyline, .key { fill: none; stroke: currentColor; stroke-width: 1.8; } .faint { stroke-width: 1; opacity: .35; }
.dashed { stroke-dasharray: 6 4; } path.dots { stroke: currentColor; stroke-width: 6; stroke-linecap: round; fill: none; }
.c0 { color: #2563c9; } .c1 { color: #d9580d; } .c2 { color: #1a8f5a; } .c3 { color: #9b3fb5; }
"""


def every_third(match):
    """A curve for a page of text needs no point for each half of a pixel."""
    points = match.group(1).split()
    if len(points) < 300:
        return match.group(0)
    return 'points="' + " ".join(points[:-1:3] + points[-1:]) + '"'


def main(page, title, target):
    with open(page, encoding="utf-8") as file:
        figures = re.findall(r"<figure>.*?</figure>", file.read(), re.DOTALL)
    figure = next((f for f in figures if f"<h3>{html.escape(title)}</h3>" in f), None)
    if figure is None:
        sys.exit(f"error: {page} has no figure '{title}'")
    chart = re.search(r'<svg class="chart" viewBox="0 0 (\S+) (\S+)"[^>]*>(.*)</svg>', figure, re.DOTALL)
    width, height = float(chart.group(1)), float(chart.group(2))
    inner = re.sub(r' data-name="[^"]*"', "", chart.group(3))
    inner = re.sub(r'points="([^"]*)"', every_third, inner)
    keys, legend = "", re.findall(r'<li><i class="([^"]*)"></i>(.*?)</li>', figure)
    top = 24 + 16 * ((len(legend) + 1) // 2)
    for i, (style, label) in enumerate(legend):
        left, y = 58 + i % 2 * 290, 40 - top + 16 * (i // 2)
        keys += f'<path class="key {style}" d="M{left} {y - 4}h22"/><text x="{left + 27}" y="{y}">{label}</text>\n'
    with open(target, "w", encoding="utf-8") as out:
        out.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-top} {width:g} {height + top:g}">\n')
        out.write(f'<style>{STYLE}</style>\n<text class="title" x="58" y="{16 - top}">{html.escape(title)}</text>\n')
        out.write(f"{keys}{inner}</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
