/** What a fleet on EC2 needs from the settings, and what would send its workers to the wrong address. */

interface Ec2Settings {
  readonly fleet: string
  readonly awsRegion: string
  readonly awsEndpointUrl: string
  readonly ec2LaunchTemplate: string
  readonly nodeUrls: readonly string[]
}

const loopback = /^https?:\/\/(?:localhost|127\.|\[?::1\]?|0\.0\.0\.0)/i

/** @returns sentences that say what to mend; none when there is no such fleet */
export function faultsOfEc2({ fleet, awsRegion, awsEndpointUrl, ec2LaunchTemplate, nodeUrls }: Ec2Settings): string[] {
  if (fleet !== 'ec2') return []
  const faults: string[] = []
  if (ec2LaunchTemplate === '')
    faults.push(
      'MUSTER_EC2_LAUNCH_TEMPLATE must be set with MUSTER_FLEET=ec2: make a launch template with an image (Amazon Linux 2023, for example) and a security group that lets the instances reach the nodes, and give its id (lt-…) or name',
    )
  if (awsRegion === '') faults.push('AWS_REGION must be set with MUSTER_FLEET=ec2, to eu-central-1 for example')
  // With an emulator the instances may well be processes on this machine.
  if (awsEndpointUrl === '')
    for (const url of nodeUrls.filter(url => loopback.test(url)))
      faults.push(
        `MUSTER_NODE_URLS must be addresses of the nodes that EC2 instances can reach, like http://10.0.1.10:5000, not "${url}"`,
      )
  return faults
}
