"""`lenspipe score`: an ensemble on a folder of cutouts, with no survey around it."""
