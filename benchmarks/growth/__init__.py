"""How the cost of a message grows with what is around it: devices, flows, steps, copies, messages on disk."""
