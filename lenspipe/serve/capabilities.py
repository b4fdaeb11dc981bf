"""VOSI's capabilities and availability (https://www.ivoa.net/documents/VOSI/), and the description
of the TAP service (TAPRegExt 1.0)."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from lenspipe.serve.adql import FUNCTIONS, GEOMETRIES, OWN

_CAPABILITIES = "http://www.ivoa.net/xml/VOSICapabilities/v1.0"
_AVAILABILITY = "http://www.ivoa.net/xml/VOSIAvailability/v1.0"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_PREFIXES = {
    "vr": "http://www.ivoa.net/xml/VOResource/v1.0",
    "vs": "http://www.ivoa.net/xml/VODataService/v1.1",
    "tr": "http://www.ivoa.net/xml/TAPRegExt/v1.0",
}
_FEATURES = "ivo://ivoa.net/std/TAPRegExt#features"
_TAP = "ivo://ivoa.net/std/TAP"
# Of `adql.OWN`: arguments and result.
_SIGNATURES = {
    "SEPARATION_DEG": "ra1 DOUBLE, dec1 DOUBLE, ra2 DOUBLE, dec2 DOUBLE) -> DOUBLE",
    "SEPARATION_ARCSEC": "ra1 DOUBLE, dec1 DOUBLE, ra2 DOUBLE, dec2 DOUBLE) -> DOUBLE",
    "IN_CONE": "ra DOUBLE, dec DOUBLE, ra0 DOUBLE, dec0 DOUBLE, radius_deg DOUBLE) -> BOOLEAN",
    "HEALPIX": "ra DOUBLE, dec DOUBLE, norder INTEGER) -> BIGINT",
    "HEALPIX_PARENT": "pixel_29 BIGINT, norder INTEGER) -> BIGINT",
}


def capabilities(tap_url: str, most_rows: int, formats: dict[str, str], seconds: float) -> bytes:
    """What the TAP service at a URL can do. formats: short name -> media type of its answers."""
    root = _root(_CAPABILITIES, "capabilities")
    tap = ET.SubElement(root, "capability", {_type(): "tr:TableAccess", "standardID": _TAP})
    _interface(tap, tap_url, "base", role="std", version="1.1")
    for model in ("tap_schema",):
        ET.SubElement(
            tap, "dataModel", {"ivo-id": f"ivo://ivoa.net/std/TAP#{model}-1.1"}
        ).text = "TAP_SCHEMA 1.1"
    language = ET.SubElement(tap, "language")
    ET.SubElement(language, "name").text = "ADQL"
    for version in ("2.0", "2.1"):
        ET.SubElement(
            language, "version", {"ivo-id": f"ivo://ivoa.net/std/ADQL#v{version}"}
        ).text = version
    ET.SubElement(language, "description").text = "ADQL's core; functions: " + ", ".join(FUNCTIONS)
    _features(language, "adqlgeo", dict.fromkeys(GEOMETRIES, ""))
    _features(language, "udf", {name: f"{name}({_SIGNATURES[name]}" for name in sorted(OWN)})
    for alias, media_type in formats.items():
        output = ET.SubElement(tap, "outputFormat")
        ET.SubElement(output, "mime").text = media_type
        ET.SubElement(output, "alias").text = alias
    for name, unit, value in (
        ("executionDuration", None, f"{seconds:.0f}"),
        ("outputLimit", "row", str(most_rows)),
    ):
        limit = ET.SubElement(tap, name)
        attributes = {"unit": unit} if unit else {}
        ET.SubElement(limit, "default", attributes).text = value
        ET.SubElement(limit, "hard", attributes).text = value
    for standard, path in (
        ("ivo://ivoa.net/std/VOSI#capabilities", "capabilities"),
        ("ivo://ivoa.net/std/VOSI#availability", "availability"),
        ("ivo://ivoa.net/std/VOSI#tables-1.1", "tables"),
    ):
        entry = ET.SubElement(root, "capability", {"standardID": standard})
        _interface(entry, f"{tap_url}/{path}", "full")
    return _as_xml(root)


def availability() -> bytes:
    """That the service is there: it answers."""
    root = _root(_AVAILABILITY, "availability")
    ET.SubElement(root, f"{{{_AVAILABILITY}}}available").text = "true"
    return _as_xml(root)


def _features(language: ET.Element, kind: str, forms: dict[str, str]) -> None:
    features = ET.SubElement(language, "languageFeatures", {"type": f"{_FEATURES}-{kind}"})
    for name, form in forms.items():
        feature = ET.SubElement(features, "feature")
        ET.SubElement(feature, "form").text = form or name


def _interface(
    parent: ET.Element,
    url: str,
    use: str,
    role: str | None = None,
    version: str | None = None,
    kind: str = "vs:ParamHTTP",
) -> None:
    attributes = {_type(): kind}
    if role is not None:
        attributes["role"] = role
    if version is not None:
        attributes["version"] = version
    interface = ET.SubElement(parent, "interface", attributes)
    ET.SubElement(interface, "accessURL", {"use": use}).text = url


def _root(namespace: str, name: str) -> ET.Element:
    ET.register_namespace("vosi", namespace)
    ET.register_namespace("xsi", _XSI)
    prefixes = {f"xmlns:{prefix}": uri for prefix, uri in _PREFIXES.items()}
    return ET.Element(f"{{{namespace}}}{name}", prefixes)


def _type() -> str:
    return f"{{{_XSI}}}type"


def _as_xml(root: ET.Element) -> bytes:
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content
