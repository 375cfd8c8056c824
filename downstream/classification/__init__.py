"""Retraining for classification: network, trainer, teachers, recalibration."""
