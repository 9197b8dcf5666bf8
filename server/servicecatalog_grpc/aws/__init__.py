"""AWS Service Catalog behind one narrow protocol: the boto3 client, its connections, deadlines and failures."""
