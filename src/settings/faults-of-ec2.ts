/** What a fleet on EC2 needs from the settings, and what would send its workers to the wrong address. */

interface Ec2Settings {
  readonly fleet: string
  readonly awsRegion: string
  readonly awsEndpointUrl: string
  readonly ec2LaunchTemplate: string
  readonly nodeUrls: readonly string[]
  readonly workerJoinProof: string
  readonly bundleUrl: string
  readonly bundleSha256: string
  readonly insecure: string
  readonly ec2IdentityCertFile: string
}

const loopback = /^https?:\/\/(?:localhost|127\.|\[?::1\]?|0\.0\.0\.0)/i

/** @returns sentences that say what to mend; none when there is no such fleet */
export function faultsOfEc2(settings: Ec2Settings): string[] {
  const { fleet, awsRegion, awsEndpointUrl, ec2LaunchTemplate, nodeUrls } = settings
  if (fleet !== 'ec2') return []
  const faults: string[] = []
  if (ec2LaunchTemplate === '')
    faults.push(
      'MUSTER_EC2_LAUNCH_TEMPLATE must be set with MUSTER_FLEET=ec2: make a launch template with an image (Amazon Linux 2023, for example) and a security group that lets the instances reach the nodes, and give its id (lt-…) or name',
    )
  if (awsRegion === '') faults.push('AWS_REGION must be set with MUSTER_FLEET=ec2, to eu-central-1 for example')
  const wantsDocument = settings.workerJoinProof === 'document' || settings.workerJoinProof === 'both'
  if (wantsDocument && settings.ec2IdentityCertFile === '')
    faults.push(
      `MUSTER_EC2_IDENTITY_CERT_FILE must be set with MUSTER_WORKER_JOIN_PROOF=${settings.workerJoinProof}: the RSA-2048 certificate of the region, which AWS publishes (EC2 User Guide, "AWS public certificates for instance identity document signatures")`,
    )
  if (settings.bundleUrl !== '' && settings.bundleSha256 === '')
    faults.push(
      'MUSTER_BUNDLE_SHA256 must be set with MUSTER_BUNDLE_URL, to what sha256sum prints for the archive: instances run nothing else',
    )
  // With an emulator the instances may well be processes on this machine.
  if (awsEndpointUrl !== '') return faults
  // Tokens, payloads and the code of the worker go there.
  const open = [...nodeUrls, settings.bundleUrl].filter(url => /^http:/i.test(url) && !loopback.test(url))
  if (open.length > 0 && settings.insecure !== 'yes')
    faults.push(
      `MUSTER_NODE_URLS and MUSTER_BUNDLE_URL must begin with https: tokens, payloads and code would cross the network unencrypted (${open.join(', ')}). Give the nodes TLS (docs/access.md), or say MUSTER_INSECURE=yes`,
    )
  for (const url of nodeUrls.filter(url => loopback.test(url)))
    faults.push(
      `MUSTER_NODE_URLS must be addresses of the nodes that EC2 instances can reach, like http://10.0.1.10:5000, not "${url}"`,
    )
  return faults
}
