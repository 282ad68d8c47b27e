"""The page at /docs: all operations, for people, without a network and without a script."""

import json
import re
import shlex
from base64 import b64encode
from hashlib import sha256
from html import unescape
from typing import Any

from starlette.testclient import TestClient

from batteryops.serving.reference import render


def page_of(schema: dict[str, Any], **operation: Any) -> str:  # noqa: ANN401  # any part of it
    """A page of one operation whose answer has that schema."""
    told = {"responses": {"200": {"content": {"application/json": {"schema": schema}}}}}
    part = {"type": "object", "title": "Part", "properties": {"size": {"type": "integer"}}}
    return render(
        {
            "info": {"title": "Doors", "version": "1"},
            "paths": {"/door": {"get": told | operation}},
            "components": {"schemas": {"Part": part}},
        }
    )


def rows(page: str) -> dict[str, str]:
    """What fields hold, by their names."""
    found = re.findall(r"<code>([^<]+)</code></td>\s*<td>(.*?)</td>", page, re.DOTALL)
    return {name: unescape(re.sub(r"<[^>]+>", "", kind)) for name, kind in found}


def test_the_page_shows_every_operation_and_every_refusal(client: TestClient) -> None:
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        for told in methods.values():
            for response in told["responses"].values():
                content = response.get("content", {}).get("application/problem+json", {})
                for name in content.get("examples", {}):
                    assert f"<code>{name}</code>" in page
    assert "temperature_C_mean" in rows(page)


def test_nothing_is_loaded_from_anywhere_and_no_script_runs(client: TestClient) -> None:
    response = client.get("/docs")
    page = response.text
    assert "<script" not in page
    assert "src=" not in page
    assert set(re.findall(r'href="([^"]*)"', page)) - {
        f"#{anchor}" for anchor in re.findall(r'id="([^"]*)"', page)
    } == {"data:,", "openapi.json"}
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert response.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    assert 'style="' not in page  # the policy would not let it


def test_every_anchor_is_there_once(client: TestClient) -> None:
    anchors = re.findall(r'id="([^"]*)"', client.get("/docs").text)
    assert len(anchors) == len(set(anchors))
    assert "post-predict" in anchors


def test_its_commands_can_be_typed_and_are_answered(client: TestClient) -> None:
    page = client.get("/docs").text
    command = next(
        unescape(text)
        for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
        if text.startswith("curl") and "/labels" in text
    )
    words = shlex.split(command)
    sent = json.loads(words[words.index("-d") + 1])
    assert client.post("/labels", json=sent).status_code == 200
    assert "Authorization: Bearer $KEY" in words


def test_what_the_document_says_is_text_and_no_markup() -> None:
    page = page_of({}, summary="<b>loud</b> and `a < b`", description="<img src=x>")
    assert "<b>loud" not in page
    assert "<img" not in page
    assert "&lt;b&gt;loud&lt;/b&gt; and <code>a &lt; b</code>" in page


def test_fields_of_objects_in_objects_and_lists_are_shown() -> None:
    part = {"$ref": "#/components/schemas/Part"}
    page = page_of(
        {
            "type": "object",
            "required": ["one"],
            "properties": {
                "one": part,
                "many": {"type": "array", "items": part, "minItems": 1, "maxItems": 9},
                "none": {"anyOf": [part, {"type": "null"}]},
                "by_name": {"type": "object", "additionalProperties": {"type": "number"}},
                "either": {"oneOf": [{"const": 1}, {"enum": ["a", "b"]}]},
                "at": {"type": "string", "format": "date-time"},
                "ah": {"type": "number", "exclusiveMinimum": 0},
                "list": {"type": "array"},
                "any": {},
            },
        }
    )
    assert rows(page) == {
        "one": "object",
        "one.size": "integer (may be left out)",
        "many": "list of object, 1 to 9 items (may be left out)",
        "many[].size": "integer (may be left out)",
        "none": "object or null (may be left out)",
        "none.size": "integer (may be left out)",
        "by_name": "object of number by name (may be left out)",
        "either": '1 or "a" or "b" (may be left out)',
        "at": "string (date-time) (may be left out)",
        "ah": "number, more than 0 (may be left out)",
        "list": "list (may be left out)",
        "any": "anything (may be left out)",
    }


def test_objects_that_hold_themselves_end_somewhere() -> None:
    page = render(
        {
            "info": {"title": "Doors", "version": "1"},
            "paths": {
                "/door": {
                    "put": {
                        "responses": {},
                        "requestBody": {
                            "content": {
                                "application/json": {"schema": {"$ref": "#/components/schemas/A"}}
                            }
                        },
                    }
                }
            },
            "components": {
                "schemas": {
                    "A": {
                        "type": "object",
                        "properties": {"a": {"$ref": "#/components/schemas/A"}},
                        "example": {"a": {}},
                    }
                }
            },
        }
    )
    assert "a.a.a.a.a" in rows(page)
    assert "a.a.a.a.a.a" not in rows(page)
    assert "-X PUT" in page


def test_a_body_that_is_not_json_is_sent_from_a_file() -> None:
    content = {"application/vnd.apache.parquet": {"schema": {"description": "a table"}}}
    page = page_of({}, requestBody={"content": content}, security=[{"key": []}])
    assert "--data-binary @FILE" in page
    assert "a table" in page
    assert "Bearer $KEY" in page
