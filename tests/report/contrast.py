"""Contrast of colours as WCAG 2 defines it."""

from collections.abc import Sequence


def luminance(red: float, green: float, blue: float) -> float:
    """Relative luminance of an sRGB colour with channels in 0..255."""
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        for x in (channel / 255 for channel in (red, green, blue))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The ratio, 1 to 21, of two sRGB colours."""
    darker, lighter = sorted(luminance(*colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def unreadable(texts: list) -> list:
    """Those of `TEXTS_ON_BACKGROUNDS` that fall short of 4.5 on one of their backgrounds."""
    return [
        (text, ink, background)
        for text, ink, backgrounds in texts
        for background in backgrounds
        if contrast(ink, background) < 4.5
    ]


# All text of a page that is seen, with its colour and every colour that may lie behind it (those
# of a pattern count each), as [text, [r, g, b], [[r, g, b], ...]].
TEXTS_ON_BACKGROUNDS = """
(() => {
  const colours = (text) => [...text.matchAll(/rgba?\\(([^)]+)\\)/g)].map((match) => {
    const [r, g, b, a] = match[1].split(/[ ,/]+/).map(Number);
    return { rgb: [r, g, b], solid: a !== 0 };
  }).filter((colour) => colour.solid).map((colour) => colour.rgb);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const style = getComputedStyle(element);
      const found = colours(style.backgroundColor + style.backgroundImage);
      if (found.length) return found;
    }
    return [[255, 255, 255]];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.getClientRects().length || style.visibility !== "visible") continue;
    found.push([text, colours(style.color)[0], behind(element)]);
  }
  return found;
})()
"""
