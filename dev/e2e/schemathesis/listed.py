"""Where the server refuses what its document allows, or takes what it does not name: each with its reason. All else that
differs is a fault of the document or of the server."""

import re

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

# What is refused although the document allows it: the problem, as `PATH: MESSAGE` or as the detail, and why JSON Schema
# cannot say it.
REFUSED = [
    (r"the path says `", "a body is the object that the path names: no word for what stands outside of the body"),
    (r"the service has no such TCP port", "a value must be among those of another field"),
    (r"listed twice|listed already", "items must differ in some of their fields, whichever way they are written"),
    (r"entries; at most 256 are possible", "the lengths of two fields are added"),
    (r"must be shorter than \d+ bytes|is longer than \d+ bytes|1 to \d+ bytes|values at most 253", "JSON Schema counts characters"),
    (r"resources\.memory: .* is less than a container needs", "a bound on a number that is written as text"),
    (r"(tmpfs\[\d+\]\.size|shm_size): \d+ is not from", "a bound on a number that is written as text"),
    (r"command\[0\]: it is empty", "a rule for the first of a list"),
    (r"the image `host` has no entrypoint", "one rule over several fields more than generators of examples follow"),
    (r"is outside what a quantity of .* can say exactly", "the digits of a number"),
    (r"would be told in the same variable|kinds of devices are possible", "names are compared after a change"),
    (r"more than the replicas, so they cannot all run|the soft limit is above the hard one", "a field is compared with another"),
    (r"not a regular expression", "the language of expressions, and the size that they compile to"),
    (r"floating point `-?[0-9]+\.0`, expected", "JSON Schema takes 5.0 for an integer, the server wants 5"),
    (r"invalid socket address syntax", "the form of IPv6 addresses"),
    (r"integer `[0-9]+`, expected u16", "the size of a number that is the key of a map"),
    (r"does not continue a list", "what the page before gave"),
    (r"the range of the .* goes backwards|never comes", "what an expression of cron means"),
]


def problems(response):
    try:
        body = response.json()
    except ValueError:
        return []
    found = [f"{problem['path']}: {problem['message']}" for problem in body.get("problems", [])]
    return found or [body.get("detail", "")]


@schemathesis.check
def allowed_is_accepted(ctx, response, case):
    """`positive_data_acceptance`, less what is listed."""
    # As 409: what is asked does not go with what is there, such as a node that reports and shall be off.
    if response.status_code == 412:
        return None
    if response.status_code in (400, 422):
        if all(any(re.search(known, problem) for known, _ in REFUSED) for problem in problems(response)):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def other_is_refused(ctx, response, case):
    """`negative_data_rejection`, less what is listed."""
    # Where no object can be, there is none: a list is empty.
    if case.method == "GET" and case.path.startswith("/v1/namespaces/{namespace}/"):
        return None
    # It is asked what would be, and nothing is sent, so that method and headers are not looked at.
    if case.path == "/v1/mesh/check":
        return None
    # In a merge a part of an object is enough that is whole already; with a field that no object has, it is refused.
    if case.method == "PATCH" and isinstance(case.body, dict):
        if not any(name.startswith("x-schemathesis") for name in case.body):
            return None
    return negative_data_rejection(ctx, response, case)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    # A watch has no end.
    for endless in ("watch", "follow"):
        (case.query or {}).pop(endless, None)
    # Thousands of containers would be this machine's load and no difference; `plan` takes what is written.
    if case.method != "GET" and not case.path.endswith("/plan"):
        fewer(case.body)


def fewer(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "replicas" and isinstance(inner, int) and 3 < inner <= 10_000:
                value[name] = 3
            else:
                fewer(inner)
    elif isinstance(value, list):
        for inner in value:
            fewer(inner)
