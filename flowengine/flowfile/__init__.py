"""From text to a checked flow: positions, params, references, conditions, schema, and the errors a person reads."""
