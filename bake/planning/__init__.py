"""The parts of a plan: what AWS and the Hub are asked, and what follows from their answers."""
