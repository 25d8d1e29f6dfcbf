"""What a person may do: roles, single permissions, loans, institutions; decided by the policy in `policies/`."""
