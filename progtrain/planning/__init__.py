"""`task=plan`: what a run will cost, stage by stage, by taking real steps of every stage."""
