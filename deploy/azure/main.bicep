// eligibilityd on Azure Container Apps, without a secret of Partner Center or of Redis:
// a managed identity is the credential of the app registration, opens Azure Managed
// Redis, and reads and writes the refresh token in a Key Vault. README.md has the steps
// before and after.

targetScope = 'resourceGroup'

@description('Name of the app; others are derived from it. Not one that begins with "eligibility-": see docs/install.md.')
@minLength(2)
@maxLength(20)
param name string = 'eligibilityd'

param location string = resourceGroup().location

@description('Name of the container registry in this resource group that holds the image.')
param registryName string

@description('Repository and tag in the registry, such as eligibilityd:1.4.0.')
param image string

@description('The tenant of the partner. If it is not that of this subscription, the app registration must be multitenant.')
param partnerTenantId string = tenant().tenantId

@description('Application (client) id of the app registration.')
param partnerClientId string

@description('Audience of the tokens of callers: the application id URI of your API.')
param callersAudience string

@description('Seals what the replicas keep in Redis: openssl rand -base64 32.')
@secure()
@minLength(32)
param integrityKey string

@description('Whether the vault holds the refresh token. Without it, the service does not start: the first deployment leaves it out.')
param signedIn bool = false

@description('Whether callers outside the environment reach gRPC.')
param external bool = false

@minValue(2)
param minReplicas int = 2

param maxReplicas int = 6

@description('Size of Azure Managed Redis; Balanced_B0 has 0.5 GB.')
param redisSku string = 'Balanced_B1'

var suffix = uniqueString(resourceGroup().id)
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')
// The service reads the refresh token and stores its successors.
var keyVaultSecretsOfficer = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7')

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource pull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, identity.id, acrPull)
  scope: registry
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: acrPull
  }
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: 'kv-${suffix}'
  location: location
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
  }
}

resource officer 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identity.id, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: keyVaultSecretsOfficer
  }
}

resource sealedWith 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'redis-integrity-key'
  properties: {
    value: integrityKey
  }
}

resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: '${name}-${suffix}'
  location: location
  sku: {
    name: redisSku
  }
  properties: {
    highAvailability: 'Enabled'
    minimumTlsVersion: '1.2'
    // TLS and Entra ID protect it; a private endpoint is up to your network.
    publicNetworkAccess: 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: redis
  name: 'default'
  properties: {
    accessKeysAuthentication: 'Disabled'
    clientProtocol: 'Encrypted'
    // One server, and no cluster whose nodes have other names than the certificate;
    // up to 25 GB.
    clusteringPolicy: 'NoCluster'
    evictionPolicy: 'VolatileLRU'
    port: 10000
  }
}

resource access 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = {
  parent: database
  name: 'eligibilityd'
  properties: {
    accessPolicyName: 'default'
    user: {
      objectId: identity.properties.principalId
    }
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: 30
  }
}

resource managedEnvironment 'Microsoft.App/managedEnvironments@2025-01-01' = {
  name: name
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
    // The ingress ends TLS; from there to the replicas the environment encrypts.
    peerTrafficConfiguration: {
      encryption: {
        enabled: true
      }
    }
  }
}

resource app 'Microsoft.App/containerApps@2025-01-01' = if (signedIn) {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  dependsOn: [
    pull
    officer
    access
  ]
  properties: {
    environmentId: managedEnvironment.id
    configuration: {
      activeRevisionsMode: 'Single'
      registries: [
        {
          server: registry.properties.loginServer
          identity: identity.id
        }
      ]
      secrets: [
        {
          name: 'redis-integrity-key'
          keyVaultUrl: sealedWith.properties.secretUri
          identity: identity.id
        }
      ]
      // An app has one port with TLS. It is that of gRPC; REST is a further port of plain
      // TCP, for apps of this environment only.
      ingress: {
        external: external
        allowInsecure: false
        targetPort: 9090
        transport: 'http2'
        additionalPortMappings: [
          {
            external: false
            targetPort: 8080
            exposedPort: 8080
          }
        ]
      }
    }
    template: {
      // More than server.drain, server.shutdown_timeout and 2 s.
      terminationGracePeriodSeconds: 30
      containers: [
        {
          name: 'eligibilityd'
          image: '${registry.properties.loginServer}/${image}'
          args: [
            'serve'
          ]
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          env: [
            {
              // Which of its identities the service uses.
              name: 'AZURE_CLIENT_ID'
              value: identity.properties.clientId
            }
            {
              // No tools of developers: docs/partner-center.md.
              name: 'AZURE_TOKEN_CREDENTIALS'
              value: 'prod'
            }
            {
              name: 'ELIGIBILITY_SERVER__GRPC__ADDRESS'
              value: '0.0.0.0:9090'
            }
            {
              name: 'ELIGIBILITY_SERVER__HTTP__ADDRESS'
              value: '0.0.0.0:8080'
            }
            {
              name: 'ELIGIBILITY_SERVER__PROBE__ADDRESS'
              value: '0.0.0.0:9092'
            }
            {
              // The ingress ends TLS; callers are authenticated here.
              name: 'ELIGIBILITY_SERVER__INSECURE'
              value: 'true'
            }
            {
              name: 'ELIGIBILITY_AUTH__JWT'
              value: '[{issuer: "${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0", audiences: ["${callersAudience}"], rights: {Eligibility.Check: [check, batch, prefetch, watch], Eligibility.Support: [check, support]}, require: {tid: "${tenant().tenantId}"}}]'
            }
            {
              name: 'ELIGIBILITY_PARTNER_CENTER__TENANT_ID'
              value: partnerTenantId
            }
            {
              name: 'ELIGIBILITY_PARTNER_CENTER__CLIENT_ID'
              value: partnerClientId
            }
            {
              name: 'ELIGIBILITY_PARTNER_CENTER__CLIENT_ASSERTION'
              value: 'managed_identity'
            }
            {
              name: 'ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__URL'
              value: vault.properties.vaultUri
            }
            {
              name: 'ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__SECRET'
              value: 'partner-center-refresh-token'
            }
            {
              name: 'ELIGIBILITY_CACHE__REDIS__ADDRESSES'
              value: '${redis.properties.hostName}:${database.properties.port}'
            }
            {
              name: 'ELIGIBILITY_CACHE__REDIS__TLS__ENABLED'
              value: 'true'
            }
            {
              name: 'ELIGIBILITY_CACHE__REDIS__ENTRA_ID__ENABLED'
              value: 'true'
            }
            {
              name: 'ELIGIBILITY_CACHE__REDIS__INTEGRITY_KEY_FILE'
              value: '/etc/eligibilityd/secrets/redis-integrity-key'
            }
          ]
          volumeMounts: [
            {
              volumeName: 'secrets'
              mountPath: '/etc/eligibilityd/secrets'
            }
          ]
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: 9092
              }
              periodSeconds: 10
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 9092
              }
              periodSeconds: 5
            }
          ]
        }
      ]
      volumes: [
        {
          name: 'secrets'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'redis-integrity-key'
              path: 'redis-integrity-key'
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: [
          {
            name: 'requests'
            http: {
              metadata: {
                concurrentRequests: '200'
              }
            }
          }
        ]
      }
    }
  }
}

output principalId string = identity.properties.principalId
output vaultUrl string = vault.properties.vaultUri
output grpc string = signedIn ? '${app!.properties.configuration.ingress.fqdn}:443' : ''
output rest string = 'http://${name}:8080'
