"""How an action's messages reach the far end: lanes, retry, dead letters."""
