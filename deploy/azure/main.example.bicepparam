using 'main.bicep'

param registryName = 'contosoregistry'
param image = 'eligibilityd:1.4.0'
param partnerClientId = '00000000-0000-0000-0000-000000000000'
param callersAudience = 'api://eligibilityd'
// Not in this file: export ELIGIBILITYD_INTEGRITY_KEY="$(openssl rand -base64 32)"
param integrityKey = readEnvironmentVariable('ELIGIBILITYD_INTEGRITY_KEY')
