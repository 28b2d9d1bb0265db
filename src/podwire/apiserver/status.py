"""Failures as the API says them: metav1.Status with code, reason and the fields that are wrong.

Every handler raises a `StatusError`; the server writes it out. A mistake of the client is always
a 4xx; a 5xx means that the server itself could not do its work.
"""

from __future__ import annotations

from typing import Any

from podwire.base.errors import ApiError

Object = dict[str, Any]


class FieldError(Exception):
    """What is wrong at `path`; `reason` is one of Kubernetes' causes (FieldValueInvalid, …)."""

    def __init__(
        self, path: str, detail: str, *, reason: str = "FieldValueInvalid", value: Any = None
    ) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail
        self.reason = reason
        self.value = value

    def sentence(self) -> str:
        """As kube-apiserver says it: ``spec.replicas: Invalid value: -1: must be …``."""
        words = {
            "FieldValueRequired": "Required value",
            "FieldValueNotSupported": "Unsupported value",
            "FieldValueForbidden": "Forbidden",
            "FieldValueDuplicate": "Duplicate value",
            "FieldValueNotFound": "Not found",
        }.get(self.reason, "Invalid value")
        if self.reason in ("FieldValueRequired", "FieldValueForbidden"):
            return f"{self.path}: {words}: {self.detail}"
        return f"{self.path}: {words}: {_shown(self.value)}: {self.detail}"


def required(path: str, detail: str = "must be given") -> FieldError:
    return FieldError(path, detail, reason="FieldValueRequired")


def unsupported(path: str, value: Any, allowed: list[str]) -> FieldError:
    listed = ", ".join(f'"{one}"' for one in allowed)
    return FieldError(path, f"supported values: {listed}", reason="FieldValueNotSupported", value=value)


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError(path, detail, reason="FieldValueForbidden")


class StatusError(ApiError):
    """An answer other than the object: `code`, `reason`, a sentence, and details."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(code, reason, _tame(message))
        self.details = _tamed(details)

    def body(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def not_found(resource: str, group: str, name: str) -> StatusError:
    return StatusError(
        404, "NotFound", f'{_dotted(resource, group)} "{name}" not found', _details(resource, group, name)
    )


def already_exists(resource: str, group: str, name: str) -> StatusError:
    return StatusError(
        409,
        "AlreadyExists",
        f'{_dotted(resource, group)} "{name}" already exists',
        _details(resource, group, name),
    )


def conflict(resource: str, group: str, name: str, why: str) -> StatusError:
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_dotted(resource, group)} "{name}": {why}',
        _details(resource, group, name),
    )


def changed_meanwhile(resource: str, group: str, name: str) -> StatusError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, group, name, why)


def forbidden(resource: str, group: str, name: str, why: str) -> StatusError:
    message = f'{_dotted(resource, group)} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, _details(resource, group, name))


def invalid(kind: str, group: str, name: str, errors: list[FieldError]) -> StatusError:
    """422 with one cause per wrong field."""
    shown = (
        errors[0].sentence() if len(errors) == 1 else "[" + ", ".join(one.sentence() for one in errors) + "]"
    )
    causes = [
        {"reason": one.reason, "message": one.sentence().partition(": ")[2], "field": one.path}
        for one in errors
    ]
    details = {"name": name, "group": group, "kind": kind, "causes": causes}
    where = f"{kind}.{group}" if group else kind
    return StatusError(422, "Invalid", f'{where} "{name}" is invalid: {shown}', details)


def gone(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def too_many(what: str, most: int) -> StatusError:
    """There is no room for another; clients try again later."""
    return StatusError(429, "TooManyRequests", f"there are {most} {what} already; try again later")


def method_not_allowed(method: str) -> StatusError:
    return StatusError(
        405, "MethodNotAllowed", f"the server does not allow {method} on the requested resource"
    )


def success(resource: str, group: str, name: str, uid: str) -> Object:
    """What a delete answers when the object is gone."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": name, **({"group": group} if group else {}), "kind": resource, "uid": uid},
    }


def _tame(text: str) -> str:
    """`text` without what a terminal would obey: clients print names and values as they are told."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def _tamed(value: Any) -> Any:
    """The same for all texts in `value`."""
    if isinstance(value, dict):
        return {key: _tamed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_tamed(one) for one in value]
    return _tame(value) if isinstance(value, str) else value


def _dotted(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(resource: str, group: str, name: str) -> Object:
    return {"name": name, **({"group": group} if group else {}), "kind": resource}


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value[:200] + '"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:200]
