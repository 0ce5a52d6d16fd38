"""From a call to a receipt: validation, acknowledgement, live counters, dead letters and their replay."""
