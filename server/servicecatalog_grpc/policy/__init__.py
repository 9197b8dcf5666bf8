"""The policy: who may do what. What calls are about, the rules, the file that they come from, and why they decide so."""
