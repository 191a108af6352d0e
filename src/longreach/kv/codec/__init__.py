"""Codecs: the KV of a run of tokens as bytes, for disk and host memory. One method a file.

`make("int4(group=32)").encode(keys, values)` gives bytes that `decode` reads, whichever codec wrote them. Imported only
where a model runs.
"""

from longreach.kv.codec.codec import Codec, KVShape, codecs, decode, make, open_any
from longreach.kv.codec.frame import CodecError
from longreach.kv.codec.ladder_fit import Ladder, fit
from longreach.kv.codec.opened import Opened
from longreach.kv.codec.profile import Profile, takes_profile
from longreach.kv.codec.sensitivity import Sensitivity

__all__ = [
    "Codec",
    "CodecError",
    "KVShape",
    "Ladder",
    "Opened",
    "Profile",
    "Sensitivity",
    "codecs",
    "decode",
    "fit",
    "make",
    "open_any",
    "takes_profile",
]
