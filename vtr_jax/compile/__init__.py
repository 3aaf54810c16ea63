"""Compiling a train step ahead of time: for a pod that is not there, or for the devices here."""
