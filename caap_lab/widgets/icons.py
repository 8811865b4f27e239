"""Small icons before titles, drawn as lines in the colour of the text."""

_SHAPES = {
    "image": '<path d="M2 3h12v10H2zM3 12l3-3 3 3 2-2 3 3"/><circle cx="6" cy="6" r="1"/>',
    "class": '<path d="M2 3h5.5L14 9.5 9.5 14 2 7.5z"/><circle cx="5" cy="6" r="0.8"/>',
    "methods": '<path d="M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z"/>',
    "look": '<path d="M1.5 8c3.5-5.5 9.5-5.5 13 0-3.5 5.5-9.5 5.5-13 0z"/><circle cx="8" cy="8" r="2"/>',
    "layers": '<path d="M8 2l6 3-6 3-6-3zM2 8l6 3 6-3M2 11l6 3 6-3"/>',
    "settings": '<path d="M2 4h6M12 4h2M2 8h2M8 8h6M2 12h7"/>'
    '<circle cx="10" cy="4" r="2"/><circle cx="6" cy="8" r="2"/><circle cx="11" cy="12" r="2"/>',
    "query": '<circle cx="8" cy="8" r="5"/><path d="M8 1v4M8 11v4M1 8h4M11 8h4"/>',
    "paint": '<path d="M14 2c-4 1-7 4-8 7l1 1c3-1 6-4 7-8zM6 9c-2 0-2 3-4 4 2 1 5 0 5-3"/>',
    "run": '<path d="M1.5 8h3l2-5 3 10 2-5h3"/>',
    "difference": '<path d="M2 5h6M10 11h4M3 14L13 2"/>',
    "compare": '<path d="M2 3h5v10H2zM9 3h5v10H9z"/>',
}
_WORDS = {
    "photo": "image",
    "images": "image",
    "photos": "image",
    "method": "methods",
    "heads": "methods",
    "colours": "look",
    "shown": "look",
    "blocks": "layers",
    "trace": "layers",
    "objects": "paint",
    "patches": "paint",
    "corruption": "paint",
    "chart": "run",
    "curves": "run",
    "replacement": "compare",
}


def icon(title: str) -> str:
    """The icon that fits a group's title, as SVG; that of the settings if no word of the title has one."""
    words = [_WORDS.get(word, word) for word in title.lower().split()]
    shape = next((_SHAPES[word] for word in words if word in _SHAPES), _SHAPES["settings"])
    return f'<svg class="caap-icon" viewBox="0 0 16 16" aria-hidden="true">{shape}</svg>'
