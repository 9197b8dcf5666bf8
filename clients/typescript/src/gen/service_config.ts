// @generated from servicecatalog/v1/servicecatalog_grpc_service_config.json by scripts/generate

export const serviceConfig = {
  "methodConfig": [
    {
      "name": [
        { "service": "servicecatalog.v1.ProvisioningService" },
        { "service": "servicecatalog.v1.RecordService" },
        { "service": "servicecatalog.v1.CatalogService" },
        { "service": "servicecatalog.v1.ProvisionedProductService" }
      ],
      "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    },
    {
      "name": [{ "service": "servicecatalog.v1.RecordService", "method": "WatchRecord" }]
    }
  ]
};
