"""The gate's measurements: what each way of reuse costs a model on real passages, for its card."""
