"""Make a plan from a profile and the account's answers. Nothing is asked here: `bake.account` does that."""
