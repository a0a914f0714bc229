/** Lists by API what stands in the emulator and would cost or hold something, to compare before and after a deployment. */
import type { EC2 } from '@aws-sdk/client-ec2'
import { ListBucketsCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { httpCall } from './aws/http-call.ts'

type Access = ConstructorParameters<typeof S3Client>[0] & { readonly endpoint: string; readonly region: string }

export interface WhatIsLeft {
  (): Promise<Record<string, string[]>>
  /** Puts something into every bucket that the stack of a deployment made. */
  fillBuckets(deployment: string): Promise<void>
}

export function leftIn(access: Access, ec2: EC2): WhatIsLeft {
  const s3 = new S3Client({ ...access, forcePathStyle: true })
  const buckets = async (): Promise<string[]> => {
    const { Buckets = [] } = await s3.send(new ListBucketsCommand({}))
    return Buckets.map(({ Name = '' }) => Name)
  }
  /** For services that the project has no client of: the texts of these elements (XML) or fields (JSON). */
  const list = async (service: string, action: string, name: string, body = '{}'): Promise<string[]> => {
    const isJson = action.includes('.')
    const reply = await httpCall(access.endpoint, {
      method: 'POST',
      headers: {
        authorization: `AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/${service}/aws4_request, SignedHeaders=host, Signature=x`,
        'content-type': isJson ? 'application/x-amz-json-1.1' : 'application/x-www-form-urlencoded',
        ...(isJson && { 'x-amz-target': action }),
      },
      body: isJson ? body : `Action=${action}&${body.replace('{}', '')}`,
    })
    if (reply.status !== 200) throw new Error(`${action}: ${reply.status} ${reply.body}`)
    const pattern = isJson ? new RegExp(`"${name}":\\s*"([^"]*)"`, 'g') : new RegExp(`<${name}>([^<]*)<`, 'g')
    return [...reply.body.toString().matchAll(pattern)].map(match => match[1] ?? '').sort()
  }
  const left = async (): Promise<Record<string, string[]>> => {
    const { Reservations = [] } = await ec2.describeInstances({})
    const instances = Reservations.flatMap(({ Instances = [] }) => Instances)
    const alive = instances.filter(({ State }) => State?.Name !== 'terminated')
    const { Volumes = [] } = await ec2.describeVolumes({})
    const { Addresses = [] } = await ec2.describeAddresses({})
    const { Vpcs = [] } = await ec2.describeVpcs({})
    const { VpcEndpoints = [] } = await ec2.describeVpcEndpoints({})
    const { NetworkInterfaces = [] } = await ec2.describeNetworkInterfaces({})
    const { LaunchTemplates = [] } = await ec2.describeLaunchTemplates({})
    return {
      instances: alive.map(({ InstanceId = '' }) => InstanceId),
      // moto keeps the disks and the network interfaces of instances that have ended.
      volumes: Volumes.filter(({ State }) => State === 'available').map(({ VolumeId = '' }) => VolumeId),
      interfaces: NetworkInterfaces.filter(({ Status }) => Status === 'available').map(
        ({ NetworkInterfaceId = '' }) => NetworkInterfaceId,
      ),
      addresses: Addresses.map(({ PublicIp = '' }) => PublicIp),
      vpcs: Vpcs.map(({ VpcId = '' }) => VpcId),
      endpoints: VpcEndpoints.filter(({ State }) => String(State) !== 'deleted').map(
        ({ VpcEndpointId = '' }) => VpcEndpointId,
      ),
      launchTemplates: LaunchTemplates.map(({ LaunchTemplateId = '' }) => LaunchTemplateId),
      buckets: await buckets(),
      stacks: await list('cloudformation', 'DescribeStacks', 'StackName'),
      secrets: await list('secretsmanager', 'secretsmanager.ListSecrets', 'Name', '{"IncludePlannedDeletion": true}'),
      parameters: (await list('ssm', 'AmazonSSM.DescribeParameters', 'Name')).filter(name => !name.startsWith('/aws/')),
      logGroups: await list('logs', 'Logs_20140328.DescribeLogGroups', 'logGroupName'),
      groups: await list('autoscaling', 'DescribeAutoScalingGroups', 'AutoScalingGroupName'),
      roles: await list('iam', 'ListRoles', 'RoleName'),
      alarms: await list('monitoring', 'DescribeAlarms', 'AlarmName'),
    }
  }
  return Object.assign(left, {
    async fillBuckets(deployment: string) {
      const names = (await buckets()).filter(name => new RegExp(`^${deployment}-\\w+bucket-`).test(name))
      // Twice: in a bucket with versions there is an old one then.
      for (const Bucket of [...names, ...names])
        await s3.send(new PutObjectCommand({ Bucket, Key: 'a b/ü+1', Body: 'x' }))
    },
  })
}
