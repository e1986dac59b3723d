"""Everything that recuerdo raises on purpose.

    RecuerdoError
    ├── ReadError          a read was asked for something it cannot do (also a ValueError)
    ├── ShapeError         tensors do not fit together (also a ValueError)
    ├── NothingHeard       a model was watched and none of its attention came by
    ├── AddressError       an address, layer, head or step that no read has (also a KeyError)
    ├── ModelError         a model that cannot be found, loaded or used this way
    ├── FetchError         a file could not be fetched, or is not the file that was promised
    ├── MarkError          a mark that cannot be used (also a ValueError)
    ├── JournalError       feedback that could not be kept or read
    ├── RunError           a run's folder that cannot be used
    ├── StoreError         a memory's store that cannot be used
    │   └── NoMemory       there is none at the place that was named
    └── InputError         what a person handed over cannot be used (also a ValueError)

A message is one short fact and the way out. The command line prints it as one line and leaves with exit code 2.
"""


class RecuerdoError(Exception):
    """The root: catch this to catch all that recuerdo raises on purpose."""


class ReadError(RecuerdoError, ValueError):
    """A read was asked for something it cannot do; the message names the way out."""


class ShapeError(RecuerdoError, ValueError):
    """Tensors do not fit together; the message gives both shapes."""


class NothingHeard(RecuerdoError):
    """A model was watched and none of its attention came by."""


class AddressError(RecuerdoError, KeyError):
    """An address, layer, head or step that no read has; the message names what there is."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class ModelError(RecuerdoError):
    """A model that cannot be found, loaded or used this way."""


class FetchError(RecuerdoError):
    """A file could not be fetched, or is not the file that was promised."""


class MarkError(RecuerdoError, ValueError):
    """A mark that cannot be used; the message says what can."""


class JournalError(RecuerdoError):
    """Feedback that could not be kept or read; the message names the file and the fix."""


class RunError(RecuerdoError):
    """A run's folder that cannot be used; the message names the file and the fix."""


class StoreError(RecuerdoError):
    """A memory's store that cannot be opened, read or written; the message names the file and the fix."""


class NoMemory(StoreError):
    """There is no memory at the place that was named; the message says how one is made."""


class InputError(RecuerdoError, ValueError):
    """What a person handed over cannot be used; the message says what can."""
