"""Checks, before any call, that the devices fit the way in which a recipe trains its students."""

from __future__ import annotations

from collections.abc import Sequence

from vivavoce import plugins
from vivavoce.config import Recipe
from vivavoce.errors import RecipeError
from vivavoce.methods.opening import trained_how
from vivavoce.methods.trainings import Training
from vivavoce.train.launch import need_devices, visible_gpus
from vivavoce.train.objective import OnPolicyOptions


def check_devices(recipe: Recipe, gpus: Sequence[str] | None = None) -> None:
    """Raise RecipeError or MissingDependency if training would be refused because of its processes or packages.

    ``gpus`` are those that are visible, None to look.
    """
    devices = recipe.train
    need_devices(devices.processes, visible_gpus() if gpus is None else gpus)
    for where, settings in trained_how(recipe):
        settings.need_packages()
        if settings.quantise and not settings.lora:
            what = "weights in 4 bits cannot be trained, only an adapter beside them"
            raise RecipeError(what, f"{where}.lora", "keep lora, or set the student's quantise to null")
        if settings.quantise and devices.fsdp:
            what = "weights in 4 bits are not shared among processes"
            raise RecipeError(what, "train.fsdp", "set it to false, or quantise to null")
        if settings.quantise and recipe.student.options.get("serve") and isinstance(settings, OnPolicyOptions):
            what = "an engine serves the student's whole weights, but the student would learn beside weights in 4 bits"
            raise RecipeError(what, f"{where}.quantise", "leave out the student's `serve`, or set quantise to null")
        states = getattr(settings, "states_per_step", None)
        if states is not None and states < (devices.processes or 1):
            what = f"{devices.processes} processes share the {states} states of an update, and each needs one"
            raise RecipeError(what, f"{where}.states_per_step", f"set it to {devices.processes} or more")
        if devices.fsdp and settings.muon:
            raise RecipeError("Muon needs whole matrices", f"{where}.muon", "set it to null, or train.fsdp to false")
        if devices.fsdp and getattr(settings, "attention", None) == "rows":
            what = "weights cannot be shared among processes if every answer has a row of its own"
            raise RecipeError(what, f"{where}.attention", "set it to auto, or train.fsdp to false")
    if devices.fsdp and any(line.kind == "MAGDi" for line in _trainings(recipe)):
        what = "the graph encoder of MAGDi cannot be shared among processes"
        raise RecipeError(what, "train.fsdp", "set it to false, or leave out the arm magdi")


def _trainings(recipe: Recipe) -> list[Training]:
    method = plugins.load("methods", recipe.method, "method")
    return method.trainings(recipe) if hasattr(method, "trainings") else []


__all__ = ["check_devices"]
