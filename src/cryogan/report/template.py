"""Jinja2 templates of the page; text that is not marked as HTML is escaped."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_LOADER = PackageLoader("cryogan.report")
_ENVIRONMENT = Environment(
    loader=_LOADER,
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)


def render(name: str, /, **values: Any) -> Markup:
    """The HTML that `templates/NAME.html.j2` makes of values."""
    return Markup(_ENVIRONMENT.get_template(f"{name}.html.j2").render(values))


def missing(what: str) -> Markup:
    """The line that stands where something was left out."""
    return Markup('<p class="missing">Left out: {}.</p>').format(what)


def _source(name: str) -> Markup:
    """A style sheet or script beside the templates, as it is."""
    return Markup(_LOADER.get_source(_ENVIRONMENT, name)[0])


_ENVIRONMENT.globals |= {"missing": missing, "source": _source}
