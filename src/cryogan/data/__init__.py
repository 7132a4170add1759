"""One data layer: half-sets, preprocessed images in memory or streamed, statistics, padding."""
