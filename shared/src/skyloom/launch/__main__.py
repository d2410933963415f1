"""`python -m skyloom.launch <verb> [name=value …]`; `make <verb> name=value …` calls it."""

import importlib
import sys
import traceback
import warnings

from skyloom.errors import UserError, nearest
from skyloom.launch.words import given_words

VERBS = {  # verb: module that does it
    "train": "training",
    "analyse": "training",
    "rerun": "training",
    "evaluate": "saved",
    "predict": "saved",
    "export": "saved",
    "report": "pages",
    "runs": "pages",
    "ls": "catalogue",
    "config": "catalogue",
    "sweep": "sweeping",
    "new": "skeleton",
    "bench": "benches",
    "docs": "pages",
}


def main(argv: list[str]) -> int:
    """0 well; 2 a user's mistake, one line; 1 a fault of ours, with its traceback; 130 Ctrl-C."""
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
    verb, words = (argv[0] if argv else "help"), given_words(argv[1:])
    debug = "debug=true" in words
    words = [word for word in words if word != "debug=true"]
    try:
        if verb in VERBS:
            module = importlib.import_module(f"skyloom.launch.{VERBS[verb]}")
            return int(getattr(module, verb)(words) or 0)
        from skyloom.launch.package_verbs import call, package_verbs

        if verb not in package_verbs():
            raise UserError(f"there is no verb {verb!r}.{nearest(verb, [*VERBS, *package_verbs()])}")
        return call(verb, words)
    except (UserError, PermissionError) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
