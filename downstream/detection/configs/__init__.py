"""MMDetection configs in MMEngine's Python style; the values are the IDa-Det recipe's."""
