"""Quantised variants of the small models."""

import mlx.nn as nn
import pytest

from mlxray.testing.zoo import QUANTISED, small_model


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_models_are_quantised(name):
    modules = [module for _, module in small_model(name).named_modules()]
    bits = [module.bits for module in modules if hasattr(module, "bits")]
    assert set(bits) == {QUANTISED[name]}
    assert len(bits) > sum(type(module) is nn.Linear for module in modules)
