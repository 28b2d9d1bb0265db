"""Tables that the stages share, and reconcilers that keep a target equal to one."""
