"""Which points a model has, for people and for tests."""

from __future__ import annotations

from dataclasses import dataclass

from .experts import ExpertsSite
from .head_site import HeadSite
from .sites import AttentionSite, HeadOutSite, ModuleSite, ResidMidSite, Site
from .vocabulary import AddressLike


@dataclass(frozen=True)
class PointStatus:
    """Whether a layer has a point, and where, or why not.

    Attributes:
        declared: Where it is not available: whether the adapter says so (and a role is not merely
            missing from the place where the adapter expects it).
    """

    point: str
    layer: int | None
    available: bool
    detail: str
    declared: bool = True

    @property
    def address(self) -> AddressLike:
        """The address of the point."""
        return self.point if self.layer is None else (self.point, self.layer)


def where(site: Site) -> str:
    """A few words on where a site is, for tables."""
    if isinstance(site, ModuleSite):
        return f"{site.edge} of {site.path or 'the model'}" + (
            f", call {site.call}" if site.call is not None else ""
        )
    if isinstance(site, AttentionSite):
        return f"inside {site.path}"
    if isinstance(site, HeadOutSite):
        return f"through {site.path}"
    if isinstance(site, ExpertsSite):
        return f"mix of {site.experts}"
    if isinstance(site, HeadSite):
        return f"head {site.head} of {where(site.whole)}"
    if isinstance(site, ResidMidSite):
        return f"input of {site.norm}"
    return type(site).__name__
