"""A data set that is asked for the same few values again and again, as reading a file does.

For every access pydicom looks the keyword up, makes a tag of it and finds the element; the first time it also makes
an element of the bytes. That was nearly half of what a small picture cost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.values import convert_value

# Representations whose value depends on nothing but the element's bytes and the character set.
_PLAIN = frozenset("AE AS CS DA DS FD FL IS LO OB OW PN SH SL SS TM UI UL US".split())
_MENDED = "Descriptor"  # of a look-up table: its first number has another meaning than it seems
_ABSENT = object()


class QuickDataset(Dataset):  # type: ignore[misc] # pydicom has no types for us
    """A data set that remembers which value each keyword had.

    What comes back, and what is raised, is the same as of the data set that it was made from. A value that is
    assigned is seen; one that is changed inside of its element is not.
    """

    @classmethod
    def of(cls, dataset: Dataset) -> QuickDataset:
        """Return a quick data set with the elements, the file meta group and the encoding of another one.

        Parameters
        ----------
        dataset : pydicom.dataset.Dataset
            Both hold the same elements afterwards; it is not to be used any more.
        """
        made = cls.__new__(cls)
        made.__dict__.update(dataset.__dict__)
        made.__dict__["_known"] = {}
        meta = made.__dict__.get("file_meta")
        if meta is not None:
            made.__dict__["file_meta"] = cls.of(meta)
        return made

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a keyword, or the element of a tag, or the default."""
        tag = _tag_of(key) if type(key) is str else None
        if tag is None:
            return super().get(key, default)
        try:
            value = self._value(key, tag)
        except AttributeError:  # so does pydicom
            return default
        return default if value is _ABSENT else value

    def __getattr__(self, name: str) -> Any:
        # Called for what is no attribute of the object only: keywords, that is.
        tag = _tag_of(name)
        value = _ABSENT if tag is None else self._value(name, tag)
        return super().__getattr__(name) if value is _ABSENT else value

    def __contains__(self, name: Any) -> bool:
        tag = _tag_of(name) if type(name) is str else None
        return super().__contains__(name) if tag is None else tag in self.keys()

    def __setitem__(self, key: Any, element: Any) -> None:
        super().__setitem__(key, element)
        self._known.pop(_keyword_of(int(element.tag)), None)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._known.clear()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._known.clear()

    def _value(self, keyword: str, tag: int) -> Any:
        known: dict[str, Any] = self.__dict__["_known"]
        value = known.get(keyword, _ABSENT)
        if value is _ABSENT:
            element = self._dict.get(tag, _ABSENT)
            if element is _ABSENT:
                return _ABSENT
            value = self._converted(element, keyword, tag)
            if value is _ABSENT:
                value = self[tag].value
            known[keyword] = value
        return value

    def _converted(self, element: Any, keyword: str, tag: int) -> Any:
        """Return what pydicom makes of the bytes, without making an element; absent where more is to be done."""
        if type(element) is not RawDataElement or element.value is None:
            return _ABSENT
        vr = element.VR or _representation_of(tag)
        if vr not in _PLAIN or keyword.endswith(_MENDED):
            return _ABSENT
        try:
            return convert_value(vr, element, self.original_character_set or self._character_set)
        except Exception:
            return _ABSENT  # pydicom knows what to do


_tag_of = lru_cache(4096)(tag_for_keyword)
_keyword_of = lru_cache(4096)(keyword_for_tag)


@lru_cache(4096)
def _representation_of(tag: int) -> str:
    return str(dictionary_VR(tag))
