"""What of viser's page is answered in another way than viser has it."""
