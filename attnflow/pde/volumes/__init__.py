"""Any data: cells that exchange features with their neighbours."""
