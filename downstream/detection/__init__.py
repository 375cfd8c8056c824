"""Object detection with MMDetection: any of our networks as a backbone, its configs, data and evaluation."""
