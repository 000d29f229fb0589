"""Cut PEFT adapters along with the model they were trained on."""
