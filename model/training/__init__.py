"""What only training needs: nothing in here travels with the model artifact."""
