"""Stands for optimum-neuron's exporter, which is run as a module."""
