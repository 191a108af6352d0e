"""From hits to a prompt: choose what the model shall read, order it, and lay it out."""
