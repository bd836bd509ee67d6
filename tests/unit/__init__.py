"""Tests of one module each, without a broker unless the module is one."""
