"""The page at `/docs`: every operation for people to read, without a network and without a script.

It shows the OpenAPI document and nothing else. Swagger UI would be a megabyte and a half of a
script that is handed API keys, from another host or from a package that repeats it.
"""

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Final

import jinja2
from fastapi import FastAPI
from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from batteryops.serving.problems import MEDIA_TYPE

__all__ = ["add_reference_page", "render"]

_JSON: Final = "application/json"
_DEEPEST: Final = 4  # objects in objects that a table shows
_CODE: Final = re.compile(r"`([^`]+)`")
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A line of a table of fields, or of parameters.

    Args:
        name: with those of the objects around it: `interval.low_ah`, `labels[].source`.
        kind: what it may hold, in words.
        required: whether it must be there.
        meaning: what the document says of it.
    """

    name: str
    kind: str
    required: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Form:
    """One form that a body may have.

    Args:
        title: of its schema, or its media type.
        fields: none where it is not a JSON object.
        meaning: what the document says of it.
    """

    title: str
    fields: list[FieldRow]
    meaning: str


@dataclass(frozen=True, slots=True)
class Example:
    """A body as it may look."""

    name: str
    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Body:
    """A request's or an answer's body: its media types, its forms, and examples."""

    media_types: list[str]
    forms: list[Form]
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A problem that an operation may answer.

    Args:
        name: last part of its `type`.
        status: of HTTP.
        title: the same words every time.
        text: an example of the whole document.
    """

    name: str
    status: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    description: str
    keyed: bool
    parameters: list[FieldRow]
    request: Body | None
    answer: Body | None
    refusals: list[Refusal]
    command: str

    @property
    def anchor(self) -> str:
        """Names its place on the page."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.method}{self.path}".lower()).strip("-")


def add_reference_page(app: FastAPI) -> None:
    """Add `GET /docs`, from all operations that the app has when it is first asked."""

    @cache
    def page() -> HTMLResponse:
        text = render(app.openapi())
        return HTMLResponse(text, headers={"Content-Security-Policy": _policy(text)})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return await run_in_threadpool(page)


def render(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as one HTML page.

    Args:
        document: of version 3.1; references lead to its own `components` only.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.serving"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    operations = list(_operations(document))
    return environment.get_template("reference.html").render(
        title=document["info"]["title"],
        version=document["info"]["version"],
        paragraphs=document["info"].get("description", "").strip().split("\n\n"),
        operations=operations,
    )


def _policy(page: str) -> str:
    """What a browser may do on the page: show it, in its own style."""
    styles = " ".join(
        f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"
        for style in _STYLE.findall(page)
    )
    return (
        f"default-src 'none'; style-src {styles}; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _prose(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            keyed = bool(told.get("security"))
            request = _body(told.get("requestBody", {}).get("content", {}), document)
            answer = told["responses"].get("200", {}).get("content", {})
            yield Operation(
                method=method.upper(),
                path=path,
                summary=told.get("summary", ""),
                description=told.get("description", ""),
                keyed=keyed,
                parameters=[_parameter(each, document) for each in told.get("parameters", ())],
                request=request,
                answer=_body(answer, document),
                refusals=list(_refusals(told["responses"])),
                command=_command(method.upper(), path, request, keyed=keyed),
            )


def _command(method: str, path: str, request: Body | None, *, keyed: bool) -> str:
    """The operation by curl, as a person would type it."""
    place = re.sub(r"{(\w+)}", lambda name: f"${name[1].upper()}", path)
    parts = [f'curl -s "$SERVER{place}"']
    if method not in {"GET", "POST"} or (method == "POST" and request is None):
        parts.append(f"-X {method}")
    if keyed:
        parts.append('-H "Authorization: Bearer $KEY"')
    if request is not None:
        shown = request.examples[0].text if request.examples else "{}"
        sent = json.dumps(json.loads(shown)) if _JSON in request.media_types else "@FILE"
        option = "-d" if sent != "@FILE" else "--data-binary"
        kind = _JSON if _JSON in request.media_types else request.media_types[0]
        parts += [f"-H 'Content-Type: {kind}'", f"{option} {shlex.quote(sent)}"]
    return " \\\n  ".join(parts)


def _body(content: Mapping[str, Any], document: Mapping[str, Any]) -> Body | None:
    if not content:
        return None
    forms, examples = [], []
    for media_type, told in content.items():
        schema = _resolved(told.get("schema", {}), document)
        for each in _alternatives(schema):
            form = _resolved(each, document)
            fields = list(_fields(form, document)) if media_type == _JSON else []
            title = form.get("title", "") if fields else media_type
            forms.append(Form(title, fields, form.get("description", "")))
            if "example" in form and not told.get("examples"):
                examples.append(Example(title, _pretty(form["example"]), ""))
        examples += [
            Example(name, _pretty(one["value"]), one.get("description", one.get("summary", "")))
            for name, one in told.get("examples", {}).items()
            if "value" in one
        ]
    told_forms = [form for form in forms if form.fields or form.meaning]
    return Body(list(content), told_forms, examples)


def _refusals(responses: Mapping[str, Any]) -> Iterator[Refusal]:
    for status, response in responses.items():
        content = response.get("content", {}).get(MEDIA_TYPE, {})
        for name, example in content.get("examples", {}).items():
            value = example["value"]
            yield Refusal(name, int(status), value["title"], _pretty(value))


def _parameter(told: Mapping[str, Any], document: Mapping[str, Any]) -> FieldRow:
    return FieldRow(
        f"{told['name']} ({told['in']})",
        _kind(told.get("schema", {}), document),
        bool(told.get("required")),
        told.get("description", ""),
    )


def _fields(
    schema: Mapping[str, Any], document: Mapping[str, Any], before: str = "", depth: int = 0
) -> Iterator[FieldRow]:
    """The fields of an object, and those of the objects in it."""
    required = schema.get("required", ())
    for name, given in schema.get("properties", {}).items():
        inner = _resolved(given, document)
        meaning = given.get("description") or inner.get("description", "")
        yield FieldRow(f"{before}{name}", _kind(given, document), name in required, meaning)
        if depth == _DEEPEST:
            continue
        for each in _alternatives(inner):
            nested = _resolved(each, document)
            items = _resolved(nested.get("items", {}), document)
            yield from _fields(nested, document, f"{before}{name}.", depth + 1)
            yield from _fields(items, document, f"{before}{name}[].", depth + 1)


def _kind(given: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What a value may be, in words.

    Examples:
        >>> _kind({"type": ["number", "null"], "minimum": 0.0, "maximum": 5.0}, {})
        'number or null, 0 to 5'
        >>> _kind({"type": "array", "items": {"enum": ["a", "b"]}}, {})
        'list of "a" or "b"'
    """
    schema = _resolved(given, document)
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    alternatives = _alternatives(schema)
    if len(alternatives) > 1:
        return " or ".join(dict.fromkeys(_kind(each, document) for each in alternatives))
    kind = schema.get("type", "anything")
    words = kind if isinstance(kind, str) else " or ".join(kind)
    if kind == "array":
        words = f"list of {_kind(schema['items'], document)}" if "items" in schema else "list"
    elif kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        words = f"object of {_kind(values, document)} by name"
    elif schema.get("format"):
        words = f"{words} ({schema['format']})"
    return words + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    for low, high, what in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            return f", {least:g} to {most:g}{what}"
    above = schema.get("exclusiveMinimum")
    return "" if above is None else f", more than {above:g}"


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a value may be one of; the schema itself where it names no such choice."""
    return schema.get("oneOf") or schema.get("anyOf") or [schema]


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to; the schema itself where it is none."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = document
    for part in str(reference).removeprefix("#/").split("/"):
        found = found[part]
    return _resolved(found, document)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
