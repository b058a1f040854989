Feature: Calls of services
  As somebody who calls services from a definition
  I want the stand-in to be reached in place of the hosts that are named
  So that features which name public services run without a network

  Scenario: A list by query
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: by-query, version: '1.0.0' }
    do:
      - find:
          call: http
          with:
            method: get
            endpoint: https://petstore.swagger.io/v2/pet/findByStatus
            query: { status: '${ .status }' }
          output: { as: '{ pets: . }' }
    """
    And given the workflow input is:
    """yaml
    status: sold
    """
    When the workflow is executed
    Then the workflow output should have a 'pets' property containing 4 items
    And the workflow output should have properties 'pets[0].id', 'pets[0].name'

  Scenario: A whole response
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: response, version: '1.0.0' }
    do:
      - get:
          call: http
          with: { method: get, endpoint: 'https://petstore.swagger.io/v2/pet/{id}', output: response }
    """
    And given the workflow input is:
    """yaml
    id: 3
    """
    When the workflow is executed
    Then the workflow should complete
    And the workflow output should have properties 'request.method', 'request.uri', 'statusCode', 'headers', 'content.id'
    And the workflow output should have a 'statusCode' property with value:
    """yaml
    200
    """

  Scenario: What is not there is caught
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: caught, version: '1.0.0' }
    do:
      - attempt:
          try:
            - get: { call: http, with: { method: get, endpoint: 'https://petstore.swagger.io/v2/pet/4711' } }
          catch:
            errors: { with: { status: 404 } }
            as: problem
            do:
              - tell: { set: { found: false, at: '${ $problem.instance }' } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    found: false
    at: /do/0/attempt/try/0/get
    """

  Scenario: What is not there faults
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: not-caught, version: '1.0.0' }
    do:
      - get: { call: http, with: { method: get, endpoint: 'https://petstore.swagger.io/v2/pet/4711' } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    status: 404
    instance: /do/0/get
    """

  Scenario: An operation of an OpenAPI document
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: operation, version: '1.0.0' }
    do:
      - find:
          call: openapi
          with:
            document: { endpoint: 'https://petstore.swagger.io/v2/swagger.json' }
            operationId: findPetsByStatus
            parameters: { status: available }
          output: { as: '{ first: .[0].id }' }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    first: 1
    """
